"""The networks that metrics look with, and their weights."""
