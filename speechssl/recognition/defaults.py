"""What recognition does where nobody says more. The help of the verbs reads it, without a model."""

# Audio that is recognised at once, seconds. Larger batches leave a CPU's caches, smaller ones do
# not fill its cores.
BATCH_SECONDS = 40.0
# The share of the labels that is learned from, the most confident ones.
KEEP = 0.67
# With --budget: the preset for labels alone, from random weights.
BUDGET_PRESET = "minutes"
