"""What runs inside the cell: the engine, the readers of documents, the answering. Imports `channel` alone of ours."""
