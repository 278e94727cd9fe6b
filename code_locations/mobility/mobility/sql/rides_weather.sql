-- Each counted hour with its weather; an hour whose weather is missing stays, so that no ride is ever lost here.
select
  r.ride_id,
  r.ride_hour,
  cast(r.ride_hour as date) as ride_date,
  cast(hour(r.ride_hour) as integer) as hour_of_day,
  cast(r.casual as integer) as casual,
  cast(r.registered as integer) as registered,
  cast(r.casual + r.registered as integer) as rides,
  -- The weekday is blank in 875 source rows; the date knows it.
  strftime(r.ride_hour, '%a') as weekday,
  coalesce(w.workingday, isodow(r.ride_hour) < 6) as is_working_day,
  coalesce(w.holiday, false) as is_holiday,
  w.season,
  s.months as season_months,
  coalesce(w.weathersit, 'Unknown') as weather,
  w.temp as temperature_c,
  w.atemp as feels_like_c,
  cast(w.hum as integer) as humidity_percent,
  w.windspeed as wind_kmh
from bronze.rides as r
left join bronze.weather as w
  on
    w.dteday = cast(r.ride_hour as date)
    and w.hr = hour(r.ride_hour)
    and w._is_current
left join bronze.seasons as s
  on s.season = w.season and s._is_current
where r._is_current
