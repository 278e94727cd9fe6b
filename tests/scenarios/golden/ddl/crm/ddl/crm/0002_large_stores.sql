CREATE VIEW gold.large_stores AS SELECT store_id, name FROM gold.stores WHERE capacity > 30;
