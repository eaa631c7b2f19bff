"""Where answers are kept: the exact cache and what may stand behind it."""
