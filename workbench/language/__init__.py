"""Language models and reasoning: blocks of text, problems, traces, what a teacher says of each token (06, 07)."""
