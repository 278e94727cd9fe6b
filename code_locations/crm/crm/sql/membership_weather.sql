select
  membership,
  weather,
  cast(count(*) as bigint) as rentals,
  cast(count(distinct rider_id) as bigint) as riders,
  round(avg(duration_minutes), 2) as mean_minutes
from silver.rider_activity
group by membership, weather
