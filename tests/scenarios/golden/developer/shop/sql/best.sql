select max(pieces) as pieces from silver.pieces
