"""From log-probabilities to tokens, words and times: greedy, or beam search with a language model."""
