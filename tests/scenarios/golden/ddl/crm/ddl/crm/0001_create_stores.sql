CREATE TABLE gold.stores (
  store_id BIGINT NOT NULL COMMENT 'as on the sign',
  name     VARCHAR,
  capacity INTEGER
);
COMMENT ON TABLE gold.stores IS 'Where things are sold';
