"""KV memory: what a model has made of a text, kept so that it need not read the text again."""
