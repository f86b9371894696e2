"""Open Images, releases V4 to V7, and the benchmark OpenImage-MINI that is chosen from it by rule."""
