-- Days where the mart does not add up to the hours it is made of.
select
    hours.ride_date,
    hours.rides as rides_of_hours,
    daily.rides as rides_of_day
from (
    select
        ride_date,
        sum(rides) as rides
    from {{ ref('stg_rides_weather') }}
    group by ride_date
) as hours
full outer join {{ ref('daily') }} as daily on hours.ride_date = daily.ride_date
where hours.rides is distinct from daily.rides or daily.rides is distinct from daily.casual + daily.registered
