"""One file a panel of the page."""
