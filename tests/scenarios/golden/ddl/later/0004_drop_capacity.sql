DROP VIEW gold.large_stores;
ALTER TABLE gold.stores DROP COLUMN capacity;
