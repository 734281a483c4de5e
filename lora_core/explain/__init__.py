"""What an adapter did, which words mattered, and how it did on the test texts."""
