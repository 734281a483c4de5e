"""What is drawn: the page's look, its figures, and the parts that JavaScript draws."""
