ALTER TABLE gold.stores ADD COLUMN city VARCHAR COMMENT 'as on the map';
ALTER TABLE gold.stores ALTER COLUMN capacity TYPE BIGINT;
