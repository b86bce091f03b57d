"""The resources other than streams: health, metrics and the listing of streams.

Each module adds its routes to a klein application; :func:`~dstreams.http.pages.site.build_pages` combines the pages
that a listener serves.
"""
