-- Rentals of each month beside all rides of the city in that month.
with city as (
  select date_trunc('month', ride_date) as month, sum(rides) as rides
  from mobility.silver.rides_weather
  group by all
)

select
  cast(date_trunc('month', a.started_at) as date) as month,
  cast(count(*) as bigint) as rentals,
  cast(count(distinct a.rider_id) as bigint) as riders,
  cast(count(*) filter (where a.holiday is not null) as bigint) as rentals_on_holidays,
  round(avg(a.duration_minutes), 2) as mean_minutes,
  cast(max(city.rides) as bigint) as city_rides
from silver.rider_activity as a
left join city
  on city.month = date_trunc('month', a.started_at)
group by all
