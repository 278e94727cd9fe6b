-- Each rental with its rider, found by the keyed hash of the e-mail address: no address is ever compared here.
select
  t.rental_id,
  r.rider_id,
  coalesce(r.membership, 'former rider') as membership,
  t.started_at,
  cast(t.duration_minutes as integer) as duration_minutes,
  coalesce(w.weather, 'Unknown') as weather,
  w.temperature_c,
  w.is_working_day,
  h.holiday,
  w.rides as city_rides
from bronze.rentals as t
left join bronze.riders as r
  on r.email = t.rider_email and r._is_current
left join mobility.silver.rides_weather as w
  on w.ride_hour = t.started_at
left join reference.silver.public_holidays as h
  on h.holiday_date = cast(t.started_at as date)
where t._is_current
