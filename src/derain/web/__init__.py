"""The kit that the pages share: markup, charts, the slider, the house's style."""
