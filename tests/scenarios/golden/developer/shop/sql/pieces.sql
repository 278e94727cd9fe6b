select item, sum(pieces) as pieces from bronze.sales where _is_current group by item
