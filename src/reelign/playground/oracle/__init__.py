"""The truth about clips whose prompts are known: where they are wrong. No reward and no measure looks this way."""
