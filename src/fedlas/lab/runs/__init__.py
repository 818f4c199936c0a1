"""One run: executed, stored in its folder, loaded, and summarized with others."""
