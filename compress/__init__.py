"""The method: score, prune, fine-tune on the grid of the file, until the budget is reached."""
