select order_id, amount from crm.bronze.orders where _is_current
