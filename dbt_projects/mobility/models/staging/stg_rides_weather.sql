-- Counted hours as the marts need them: one name for each kind of day.
select
    ride_hour,
    ride_date,
    hour_of_day,
    casual,
    registered,
    rides,
    season,
    weather,
    temperature_c,
    is_holiday,
    case when is_working_day then 'working day' else 'day off' end as day_type
from {{ source('mobility', 'rides_weather') }}
