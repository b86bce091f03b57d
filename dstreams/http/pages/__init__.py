"""Everything that isn't a stream: health, metrics, the listing of streams.

Each module adds its routes to a klein application; :func:`~dstreams.http.pages.site.build_pages` puts together those
that a listener serves.
"""
