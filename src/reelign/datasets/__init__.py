"""Where prompts, clips and pairs come from: one file a data set, each with a `Config` and a `build`."""
