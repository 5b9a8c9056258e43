"""Export and import: between a server's RPCs and a file or the stock savers' tables."""
