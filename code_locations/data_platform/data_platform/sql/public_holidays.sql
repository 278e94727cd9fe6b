select
  holiday_date,
  holiday
from bronze.public_holidays
where _is_current
