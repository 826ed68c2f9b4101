"""The CTC recogniser: fine-tuned, evaluated, given a language model, and used to label audio."""
