from ssmd.api.archive import Archive

__version__: str

def open(env: str = "", *, workspace: str = "", mapper: int = 0) -> Archive: ...  # noqa: A001 - ssmd.open(...) is how it reads
