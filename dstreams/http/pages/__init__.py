"""Everything that is served and is not a stream: health, readiness, metrics and the listing for operators."""
