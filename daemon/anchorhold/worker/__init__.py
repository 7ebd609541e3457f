"""What runs inside the cell: engine, readers of documents, answering. Imports `channel` alone of ours."""
