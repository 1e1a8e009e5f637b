"""Made of archived data: a book at an instant, tables and files for others, records made anew by today's mapper."""
