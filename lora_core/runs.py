"""Contract for the page (its owner replaces this file)."""
