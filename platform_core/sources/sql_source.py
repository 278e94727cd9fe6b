"""What all sources share that are asked in SQL."""

from __future__ import annotations

from platform_core.plugins.interfaces import ReadRequest, Source
from platform_core.sources.statement import check_filter, check_query


class SqlSource(Source):
    """A source with a dialect: its queries and filters are checked while control files are."""

    @classmethod
    def check_text(cls, request: ReadRequest) -> None:
        if cls.dialect is None:
            super().check_text(request)
            return
        if request.query is not None:
            check_query(request.query, dialect=cls.dialect)
        if request.filter is not None:
            check_filter(request.filter, dialect=cls.dialect)
