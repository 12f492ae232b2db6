"""What a chain has measured as a page: tables, charts, pictures, videos."""
