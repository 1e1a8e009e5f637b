"""The GitOps registry: YAML documents under exchanges/, read strictly. Git is the only database of metadata."""
