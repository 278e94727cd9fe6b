"""What a plug-in promises. One file and one entry point add a source, mask, dashboard or secret store."""

from __future__ import annotations

import datetime as dt
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa

from platform_core.errors import PluginError, SecretError, SourceError
from platform_core.specs.alerts import Severity
from platform_core.specs.base import Model
from platform_core.specs.ingestion import LoadMode, OnBadKey
from platform_core.specs.step_kinds import Compare
from platform_core.specs.table import TableRef

if TYPE_CHECKING:
    from deltalake import DeltaTable
    from duckdb import DuckDBPyConnection

Cursor = int | float | str | dt.date | dt.datetime
"""A value of a cursor column, as Arrow's ``as_py`` gives it."""


class NoOptions(Model):
    """For a plug-in without options."""


class Secret:
    """A secret value; only :meth:`reveal` shows it.

    Args:
        name: ``<workstream>/<name>``.
        value: as it is.
        expires_at: when it ends, UTC, as far as its store knows.
    """

    __slots__ = ("_value", "expires_at", "name")

    def __init__(self, name: str, value: bytes, *, expires_at: dt.datetime | None = None) -> None:
        self.name = name
        self.expires_at = expires_at
        self._value = value

    def reveal(self) -> bytes:
        """The value; call it at the moment of use and keep no copy."""
        return self._value

    def __repr__(self) -> str:
        return f"Secret({self.name!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError(f"secret {self.name!r} cannot be pickled")


@dataclass(frozen=True, kw_only=True)
class SecretEntry:
    """What a store tells about a secret beside its value; None where it does not know.

    Args:
        name: ``<workstream>/<name>``.
        owner: who answers for it: an e-mail address or ``team:<name>``.
        created_at: when the present value was set, UTC.
        expires_at: when it ends, UTC.
        enabled: whether the store hands it out.
    """

    name: str
    owner: str | None = None
    created_at: dt.datetime | None = None
    expires_at: dt.datetime | None = None
    enabled: bool = True


class SecretStore(ABC):
    """Where secret values live.

    Reading is what every store does. One that can be written sets :attr:`writable` and overrides :meth:`set` and
    :meth:`remove`; one that knows what it holds sets :attr:`listable` and overrides :meth:`entries`. Several threads
    may use a store at a time.
    """

    Options: ClassVar[type[Model]] = NoOptions
    writable: ClassVar[bool] = False
    listable: ClassVar[bool] = False
    keeps_metadata: ClassVar[bool] = False
    """Whether owner and expiry are kept with a secret."""

    def __init__(self, options: Any) -> None:
        self.options = options

    @abstractmethod
    def get(self, name: str) -> Secret:
        """The named secret; raise SecretError, which holds the name only and says where the store looked.

        It is SecretMissing where the store can tell that there is none, and not that it cannot be read. The value may
        have been read a short while ago; :meth:`fresh` reads it anew.
        """

    def fresh(self, name: str) -> Secret:
        """The named secret as the store holds it now, past whatever it remembers; errors as of :meth:`get`."""
        return self.get(name)

    def set(
        self, name: str, value: bytes, *, owner: str | None = None, expires_at: dt.datetime | None = None
    ) -> SecretEntry:
        """Keep a value under a name, in the place of the one before; at any moment either is there as a whole.

        Args:
            value: not empty.
            owner: who answers for it; None: as before.
            expires_at: when this value ends, UTC; None: never, whatever was said of the one before.

        Raises:
            SecretError: the store cannot be written, or keeps no owner or expiry where one is given.
        """
        raise SecretError(self._read_only(name))

    def remove(self, name: str) -> bool:
        """Remove a secret; returns whether there was one.

        Raises:
            SecretError: the store cannot be written.
        """
        raise SecretError(self._read_only(name))

    def entries(self) -> list[SecretEntry]:
        """What the store holds, by name, without any value.

        Raises:
            SecretError: the store cannot be read, or cannot tell.
        """
        raise SecretError(f"{type(self).__name__} cannot tell which secrets it holds; ask for one by its name")

    def _read_only(self, name: str) -> str:
        return (
            f"secret '{name}': {type(self).__name__} cannot be written from here\n"
            "  set it where the store's values come from, or choose another secret store in the environment file"
        )


@dataclass(frozen=True, kw_only=True)
class ReadRequest:
    """What is read from a source.

    Args:
        object: table, path or endpoint.
        query: one SELECT that is read in place of ``object``; only where :attr:`Source.dialect` is set.
        filter: condition in SQL; rows for which it is not true are left out; only where :attr:`Source.dialect` is set.
        columns: columns to read, in this order; None: all.
        cursor: column that ``since`` refers to.
        since: lowest cursor value wanted, inclusive; None: from the beginning.
        until: highest cursor value wanted, inclusive; None: to the end.
        parallel: readers that may share the rows; a source that cannot do so reads with one.
        split_by: column by whose ranges parallel readers share the rows.
        state: what :meth:`Source.state` gave after the last load that was committed; None: there was none.
        mode: mode of the load that reads; None: no load does. A source that keeps state leaves out what it has read
            before in ``incremental`` and ``append`` without a cursor, and nothing otherwise.
        batch_rows: most rows of one batch.
        key: columns that identify a row; given where only the key is wanted of unchanged rows.
        tracked: :meth:`Source.state` is to tell what a later :meth:`Source.read_changes` needs.
        options: the object's own options, checked against :attr:`Source.ObjectOptions`.
    """

    object: str
    query: str | None = None
    filter: str | None = None
    columns: tuple[str, ...] | None = None
    cursor: str | None = None
    since: Cursor | None = None
    until: Cursor | None = None
    parallel: int = 1
    split_by: str | None = None
    state: bytes | None = field(default=None, repr=False)
    mode: LoadMode | None = None
    batch_rows: int = 65_536
    key: tuple[str, ...] = ()
    tracked: bool = False
    options: Any = field(default_factory=NoOptions)


@dataclass(frozen=True, kw_only=True)
class Changes:
    """All rows of an object as of one moment, those that did not change by their key alone.

    Args:
        changed: rows that are new or have changed, or may have; to be drained before ``unchanged`` is read.
        unchanged: the key columns of every other row.
    """

    changed: pa.RecordBatchReader
    unchanged: pa.RecordBatchReader


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What a source says of an object, without reading its rows.

    Args:
        version: tells one state of the object from the next: at most 200 characters, without a value of a row.
        changed_at: when it came to be so, UTC; None: the source does not say.
        figures: numbers and short texts for people, without a value of a row.
    """

    version: str
    changed_at: dt.datetime | None = None
    figures: Mapping[str, int | float | str] = field(default_factory=dict)


class Source(ABC):
    """Somewhere rows come from.

    An instance is made for one load and closed after it; several may read at a time from threads.
    """

    Options: ClassVar[type[Model]] = NoOptions
    ObjectOptions: ClassVar[type[Model]] = NoOptions
    kind: ClassVar[str] = ""
    """Name that the UI shows an icon for, such as ``postgres``; empty: the plug-in's own name."""
    dialect: ClassVar[str | None] = None
    """sqlglot's name of the SQL in which a query or a filter is written; None: the source takes neither."""
    keeps_state: ClassVar[bool] = False
    """Whether the source knows by itself what it has read, so that ``incremental`` and ``append`` need no cursor."""

    tells_changes: ClassVar[bool] = False
    """Whether :meth:`read_changes` can tell what changed since a state, deletes apart."""

    compares: ClassVar[frozenset[Compare]] = frozenset()
    """By what :meth:`observe` can tell two states of an object apart; empty: the source cannot be observed."""

    def __init__(self, options: Any, *, secret: Callable[[str], Secret]) -> None:
        """Keep the options; connect only when read.

        Args:
            options: an instance of :attr:`Options`.
            secret: gives the value of a named secret.
        """
        self.options = options
        self.secret = secret

    @classmethod
    def check_text(cls, request: ReadRequest) -> None:
        """Refuse a query or a filter that would not be run, by its text alone; ValueError says what is wrong with it.

        Called while control files are checked, without a connection. A source with a dialect overrides it.
        """
        if request.query is not None or request.filter is not None:
            raise ValueError("this source takes neither query nor filter")

    @abstractmethod
    def schema(self, request: ReadRequest) -> pa.Schema:
        """The columns that :meth:`read` would stream, without reading rows where the source allows it."""

    @abstractmethod
    def read(self, request: ReadRequest) -> pa.RecordBatchReader:
        """Stream the requested rows; raise SourceError, never return a part as if it were all.

        Every batch has the reader's schema. A retry reads from the beginning. With ``request.columns`` only these are
        read, for example the key alone where deletes are looked for.
        """

    def read_changes(self, request: ReadRequest) -> Changes | None:
        """Stream what changed since ``request.state``, and the keys of all other rows; None: read everything instead.

        A row that changed must never be among the unchanged ones, whatever happened at the source in between: where
        that is not certain (another server, a restored backup, an altered table), the answer is None. The other way
        round does no harm. Only called where :attr:`tells_changes`, with ``request.key`` and ``request.tracked``.
        """
        return None

    def state(self) -> bytes | None:
        """What the next load is to know, asked once the reader of the last :meth:`read` is drained.

        It is kept only if that load is committed, and comes back as ``request.state``. At most a few megabytes; it
        holds no row value. None where :attr:`keeps_state` is false and the read was not tracked. After a read of
        changes that found none it is the state that was given.
        """
        return None

    def notes(self) -> tuple[str, ...]:
        """What a person should know of the last read once its reader is drained: a line each, without a row value."""
        return ()

    @classmethod
    def check_object(cls, object_: str) -> None:  # noqa: ARG003 - a source that knows its objects uses it
        """Refuse what could be no object of any such source, by its text alone; SourceError says why.

        Called while control files are checked, of what is to be observed. By default every text passes.
        """
        return  # not abstract: most sources take any text

    def observe(self, request: ReadRequest, *, by: Compare) -> Observation:
        """Tell how an object stands; SourceError where it is not there, or cannot be looked at.

        Args:
            request: only its object counts.
            by: one of :attr:`compares`. ``CONTENT`` reads it all, and two states of equal content are one version.
        """
        raise SourceError(f"{type(self).__name__} cannot tell whether '{request.object}' has changed")

    def close(self) -> None:
        """Release what :meth:`read` holds; called once, also after an error. Nothing by default."""
        return  # not abstract: most sources hold nothing


class Disclosure(IntEnum):
    """What a masked value still gives away, from nothing to all of it.

    A plan that leads to more than before is a privacy downgrade, and needs a person's reason.
    """

    NOTHING = 0
    EQUALITY = 1
    PART = 2
    ALL = 3


class Mask(ABC):
    """Makes personal values unreadable. null stays null.

    An instance belongs to one column of one load; `apply` is called batch by batch from one thread.
    """

    Options: ClassVar[type[Model]] = NoOptions
    needs_key: ClassVar[bool] = False
    keeps_apart: ClassVar[bool] = True
    """Whether different values stay different, so that a key column may be masked."""
    discloses: ClassVar[Disclosure] = Disclosure.PART
    """NOTHING: the value is gone; EQUALITY: equal values can be told; PART: some of the value can be read."""
    makes_null: bool = False
    """Whether a value may become null; else a load checks that none did. An instance may set it by its options."""

    def __init__(self, options: Any, *, key: Secret | None) -> None:
        """Keep options and key.

        Args:
            options: an instance of :attr:`Options`.
            key: the workstream's masking key; given where :attr:`needs_key`.
        """
        self.options = options
        self.key = key

    @classmethod
    def discloses_more(cls, options: Any, *, than: Any) -> bool:
        """Whether a column masked with ``options`` gives away more than one masked with other options of this mask.

        Both are instances of :attr:`Options`. Of a mask that shows a part any difference counts, unless the mask
        knows better.
        """
        return cls.discloses is Disclosure.PART and options != than

    @abstractmethod
    def output_type(self, type_: pa.DataType) -> pa.DataType:
        """The type of the masked column; raise ValueError for a type that this mask cannot take."""

    @abstractmethod
    def apply(self, values: pa.Array) -> pa.Array:
        """Mask one column of one batch: the same length, in the same order, the announced type, nulls where nulls were.

        The batch may be a slice or empty, and the same value becomes the same in every batch.
        """


class TableReader(ABC):
    """The current rows of one lake table, as of one version."""

    @property
    @abstractmethod
    def version(self) -> int:
        """The table version that is read."""

    @property
    @abstractmethod
    def schema(self) -> pa.Schema:
        """Columns of the table."""

    @abstractmethod
    def read(self, *, columns: tuple[str, ...] | None = None) -> pa.RecordBatchReader:
        """Stream the table."""


@dataclass(frozen=True, kw_only=True)
class ShownTable:
    """What a dashboard shows of one table.

    Args:
        version: Delta version; of a view a number that grows with the view and with what it reads.
        batch: newest batch id in that version; 0 where the table has no batches.
        made_at: when that version was committed, UTC; None where nobody can tell.
    """

    version: int
    batch: int = 0
    made_at: dt.datetime | None = None


@dataclass(frozen=True, kw_only=True)
class RefreshRequest:
    """What a dashboard refresh works with.

    Args:
        name: the dashboard, ``workstream.dashboard.name``.
        title: what a person reads above it.
        tables: reader by table name as declared in ``shows``.
        folder: lake folder for files of this dashboard.
        storage_options: for the object store of ``folder``.
        as_of: when the newest shown table was made, UTC.
        log: takes one line of progress.
        cancelled: true once the run is being cancelled; poll it while waiting.
        timeout: how long it may take; None: as long as the dashboard thinks right.
        cut: what is shown of each table, by its full name.
        remembered: what :attr:`remember` was last given, by an attempt that may have failed or died since.
        remember: keeps a few plain values for the next attempts, in place of the ones before; no secret, no row value.
    """

    name: str
    title: str
    tables: Mapping[str, TableReader]
    folder: str
    as_of: dt.datetime
    log: Callable[[str], None]
    storage_options: Mapping[str, str] = field(default_factory=dict, repr=False)
    cancelled: Callable[[], bool] = lambda: False
    timeout: dt.timedelta | None = None
    cut: Mapping[str, ShownTable] = field(default_factory=dict)
    remembered: Mapping[str, Any] = field(default_factory=dict)
    remember: Callable[[Mapping[str, Any]], None] = lambda _: None


@dataclass(frozen=True, kw_only=True)
class RefreshResult:
    """What a refresh did.

    Args:
        url: where a person finds the dashboard; empty if unknown.
        figures: numbers and short texts for the run's metadata.
    """

    url: str = ""
    figures: Mapping[str, int | float | str] = field(default_factory=dict)


class Dashboard(ABC):
    """A dashboard service, or a page of our own."""

    Options: ClassVar[type[Model]] = NoOptions
    ConnectionOptions: ClassVar[type[Model] | None] = None
    """Options of a connection of this type (``type: powerbi``); None: the dashboard needs no connection."""
    in_lake: ClassVar[bool] = False
    """Whether a refresh changes nothing but files in the folder of its request.

    Any other dashboard is everybody's, and so is never refreshed from a personal environment.
    """

    def __init__(self, options: Any, *, connection: Any, secret: Callable[[str], Secret], root: Path) -> None:
        """Keep the options.

        Args:
            options: an instance of :attr:`Options`.
            connection: an instance of :attr:`ConnectionOptions`, or None.
            secret: gives the value of a named secret.
            root: folder that relative paths in options count from.
        """
        self.options = options
        self.connection = connection
        self.secret = secret
        self.root = root

    @abstractmethod
    def refresh(self, request: RefreshRequest) -> RefreshResult:
        """Bring the dashboard up to date; raise RefreshError unless it is known to have succeeded."""

    def probe(self) -> bool:
        """Prove that the service is reached and lets us in, without changing anything; RefreshError says why not.

        False where there is no service to ask, as by default.
        """
        return False


@dataclass(frozen=True, kw_only=True)
class AlertMessage:
    """What a person is to be told, in plain text: each channel escapes it for its own format.

    Args:
        id: tells this message from every other; the same on every try, so that a service can drop a second copy.
        reference: names the alert to people, such as ``A-17``; the same in all messages about it.
        severity: how much it matters.
        good: whether it is good news: an alert that is over.
        title: one line.
        text: paragraphs, without links.
        facts: names and values, in order.
        link: address of the run; None where there is none.
        answers: what the channel returned for the message that this one answers; None: it begins a thread.
        answers_title: title of that message.
    """

    id: str
    reference: str
    severity: Severity
    title: str
    text: tuple[str, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    good: bool = False
    link: str | None = None
    answers: str | None = None
    answers_title: str = ""


class AlertChannel(ABC):
    """A service that brings messages to people."""

    Options: ClassVar[type[Model]] = NoOptions

    def __init__(self, options: Any, *, secret: Callable[[str], Secret]) -> None:
        """Keep the options.

        Args:
            options: an instance of :attr:`Options`.
            secret: gives the value of a named secret; asked at each message.
        """
        self.options = options
        self.secret = secret

    @abstractmethod
    def send(self, message: AlertMessage, *, timeout: float) -> str:
        """Hand one message over.

        Nothing in the message becomes markup, a mention, or a link that is not :attr:`AlertMessage.link`.

        Args:
            timeout: seconds that any single wait for the service may take.

        Returns:
            What a later message names to answer this one.

        Raises AlertRefused where no further try would help, AlertError where one may; neither repeats what the
        service answered, nor an address or a password.
        """


@dataclass(frozen=True, kw_only=True)
class BronzeLoad:
    """One landed batch that is to be applied to its bronze table.

    Args:
        table: the table, for messages.
        uri: where the Delta table lies.
        storage_options: for the object store of ``uri``.
        files: URIs of the landed Parquet files, all of one schema, ``_row_hash`` included.
        schema: schema of the landed files.
        batch_id: larger than every batch id that the table holds.
        mode: ``full``, ``incremental`` or ``append``.
        key: columns that identify a row; empty for append.
        sequence_by: column that tells the newer of two rows of one key.
        deleted_flag: boolean column by which the source marks rows as gone.
        max_delete_ratio: largest share of current rows that a load may flag deleted.
        modified_at: what ``_modified_at`` becomes for touched rows, UTC.
        cursor: cursor column, whose largest value is the watermark.
        metadata: texts that are committed with the data.
        delete_floor: a load that would flag fewer rows than this is not stopped for its ratio.
        held_batch: the newest batch id that the table held when the extract began, 0 where there was none: bronze with
            any other batch has been loaded by somebody else since. None: not checked.
        on_bad_key: whether null and doubled keys stop the load or are set aside.
        winner_by: of rows of one key in the batch the one with the largest value here is loaded and the others set
            aside; equal ones are told apart by their hash. None: all rows of a doubled key are set aside.
        quarantine_uri: folder that takes the rows that are set aside, masked as they are.
        history_uri: where the Delta table of all versions lies; None: no history is kept.
        keys_only: the files hold the key columns alone, of every row of the source: what bronze holds beyond them is
            flagged deleted, and nothing else happens. Rows that bronze got after ``held_batch`` do not exist by then.
        partial: only of a full load: rows without a row hash are known to be unchanged, and hold nothing but their key.
        commit_always: commit the batch id even where no row changed: something outside the table counts on it.
        rows: the whole batch where it is small enough to be held in memory, as it would be landed; ``files`` is then
            empty and ``land`` is given. None: the batch lies in ``files``.
        land: writes ``rows`` to the landing and returns the URIs of its files. The engine calls it once, before it
            writes or commits anything, and only if there is something to write or commit; a batch that changes
            nothing is never landed. None where ``files`` hold the batch.
        handle: the table as it was when the extract began, open, with ``held_batch`` as its newest batch. The engine
            may go on with it once it has made sure that no version was committed since. None: the engine opens it.
    """

    table: TableRef
    uri: str
    storage_options: Mapping[str, str]
    files: tuple[str, ...]
    schema: pa.Schema
    batch_id: int
    mode: LoadMode
    key: tuple[str, ...]
    sequence_by: str | None
    deleted_flag: str | None
    max_delete_ratio: float
    modified_at: dt.datetime
    cursor: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    delete_floor: int = 10
    held_batch: int | None = None
    on_bad_key: OnBadKey = OnBadKey.REFUSE
    winner_by: str | None = None
    quarantine_uri: str | None = None
    history_uri: str | None = None
    keys_only: bool = False
    partial: bool = False
    commit_always: bool = False
    rows: pa.Table | None = field(default=None, repr=False)
    land: Callable[[], tuple[str, ...]] | None = field(default=None, repr=False)
    handle: DeltaTable | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class BronzeOutcome:
    """What applying a batch changed; counts are rows.

    Args:
        version: Delta version after the load; the version before it where nothing changed.
        committed: whether a commit was made.
        late: rows left out because bronze holds a newer one of the same key.
        written_bytes: size of the files that were written.
        quarantined: rows set aside for their key.
    """

    inserted: int
    updated: int
    deleted: int
    unchanged: int
    late: int
    version: int
    committed: bool
    written_bytes: int
    quarantined: int = 0


class SparkSessions(ABC):
    """Gives Spark steps their sessions; chosen by the environment, under ``spark``.

    An instance is made for one step. What a step leaves behind in a session must not be there for the next one.
    """

    Options: ClassVar[type[Model]] = NoOptions

    def __init__(self, options: Any, *, secret: Callable[[str], Secret]) -> None:
        """Keep the options; reach nothing yet.

        Args:
            options: an instance of :attr:`Options`.
            secret: gives the value of a named secret.
        """
        self.options = options
        self.secret = secret

    @abstractmethod
    def open(self, *, name: str) -> Any:
        """A ``pyspark.sql.SparkSession``; PluginError where pyspark or what it needs is not installed.

        Args:
            name: what an operator of the Spark sees as the name of the work.
        """

    @abstractmethod
    def close(self, session: Any) -> None:
        """Give a session back; called once, also after an error."""


class Engine(ABC):
    """Where data work runs; chosen by the environment, never by an import."""

    Options: ClassVar[type[Model]] = NoOptions

    def __init__(self, options: Any) -> None:
        self.options = options

    @abstractmethod
    def apply(self, load: BronzeLoad) -> BronzeOutcome:
        """Apply a landed batch to bronze in one commit, or in none where nothing changed.

        A batch that the table already holds is not applied again. Columns of the batch that bronze lacks are added to
        it, and wider types taken over. Before anything is written it raises LoadError when keys are null or doubled,
        DeletesStopped when too much would be flagged deleted, and Overtaken when bronze was loaded since.
        """

    @abstractmethod
    def fence(self, uri: str, *, storage_options: Mapping[str, str], epoch: int) -> None:
        """Make every writer with a smaller batch id unable to commit to a bronze table, from now on.

        Called by whoever takes over from a holder that never let go. Nothing happens where there is no table.
        """

    @abstractmethod
    def select(
        self,
        sql: str,
        *,
        tables: Mapping[TableRef, TableReader],
        variables: Mapping[str, Any],
        cancelled: Callable[[], bool] = lambda: False,
    ) -> pa.RecordBatchReader:
        """Stream the result of one SELECT.

        Args:
            sql: one SELECT whose tables are named in full: ``workstream.layer.name``.
            tables: reader by table.
            variables: values for ``$name`` parameters.
            cancelled: true once the run is being cancelled; the query then ends with an error.

        Raises StepError with a message free of row values.
        """

    def connect(self, tables: Mapping[TableRef, TableReader]) -> DuckDBPyConnection:
        """A DuckDB connection that holds the given tables under their full names, for steps that work with relations.

        Raises PluginError where the engine has none.
        """
        raise PluginError(
            f"engine {type(self).__name__} gives no DuckDB relations of {len(tables)} tables; use .reader() or .arrow()"
        )
