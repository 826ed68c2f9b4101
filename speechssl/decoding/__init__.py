"""From log-probabilities to tokens, words and times: greedy, or with a language model."""
