-- Every row tells which build has made it, so that a reader can tell one build's table from a mixture.
select n.id, '{{ invocation_id }}' as build
from generate_series(1, 20000) as n(id)
