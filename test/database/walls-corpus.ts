/**
 * Statements of somebody whom nothing but the walls holds: each tries to read, write, contact or run something that is not
 * the engine's. `reaches` are those that do so where there are no walls, on this build of the engine.
 */
export interface Try {
  readonly what: string
  /** Run one after another; a later one may need what an earlier one made. */
  readonly statements: readonly string[]
  readonly reaches?: boolean
  /** Denied, it asks again until its client goes away: the last ones, as each may keep a lane meanwhile. */
  readonly endless?: boolean
}

export interface Targets {
  /** A folder that holds `secret` with the canary in it, and an empty, writable `out`. */
  readonly canary: string
  readonly http: number
  readonly tcp: number
  /** The process that owns the engine's process. */
  readonly parent: number
}

/** Whoever cannot be reached is not asked again and again: a try ends by itself, and the next one finds a free lane. */
export const ONCE: Readonly<Record<string, string>> = {
  http_max_tries: '1',
  s3_retry_attempts: '0',
  backup_restore_s3_retry_attempts: '0',
  azure_sdk_max_retries: '0',
  connections_with_failover_max_tries: '1',
  external_storage_connect_timeout_sec: '2',
  max_execution_time: '5',
}

export function triesOf({ canary, http, tcp, parent }: Targets): Try[] {
  const secret = `${canary}/secret`
  const out = `${canary}/out`
  const web = `http://127.0.0.1:${http}`
  const host = `127.0.0.1:${tcp}`
  const one = (what: string, ...statements: string[]): Try => ({ what, statements })
  const reaching = (what: string, ...statements: string[]): Try => ({ what, statements, reaches: true })
  const from = (table: string) => `SELECT * FROM ${table}`
  return [
    reaching('file()', from(`file('${secret}', 'LineAsString')`)),
    reaching('file() of a pattern', from(`file('${canary}/se*', 'RawBLOB')`)),
    reaching('file() by a link in its own folder', from("file('linked', 'LineAsString')")),
    reaching('file() by a linked folder', from("file('folder/secret', 'LineAsString')")),
    reaching('file() by the parent folders', from(`file('../../../../../../../../..${secret}', 'LineAsString')`)),
    reaching('file() by the root of the process', from(`file('/proc/self/root${secret}', 'LineAsString')`)),
    one('file() of its environment', from("file('/proc/self/environ', 'RawBLOB')")),
    one('file() of its command', from("file('/proc/self/cmdline', 'RawBLOB')")),
    one("file() of its parent's environment", from(`file('/proc/${parent}/environ', 'RawBLOB')`)),
    one("file() of its parent's files", from(`file('/proc/${parent}/fd/3', 'RawBLOB')`)),
    reaching('the function file()', `SELECT file('${secret}')`),
    reaching(
      'a table of the engine File',
      `CREATE TABLE w.f1 (l String) ENGINE = File(LineAsString, '${secret}')`,
      from('w.f1'),
    ),
    reaching('INFILE', `INSERT INTO w.lines FROM INFILE '${secret}' FORMAT LineAsString`, from('w.lines')),
    reaching('a database of a folder', `CREATE DATABASE wfs ENGINE = Filesystem('${canary}')`, from('wfs.`secret`')),
    one(
      'ATTACH from a folder',
      `ATTACH TABLE w.att FROM '${canary}' (l String) ENGINE = File(LineAsString)`,
      from('w.att'),
    ),
    one('SQLite', from(`sqlite('${canary}/secret', 't')`)),
    reaching('a database of SQLite', `CREATE DATABASE wsq ENGINE = SQLite('${out}/sqlite.db')`),
    one('Iceberg on files', from(`icebergLocal('${canary}/')`)),
    one('Delta Lake on files', from(`deltaLakeLocal('${canary}/')`)),
    one('a model of CatBoost', `SELECT catboostEvaluate('${secret}', 1.0)`),
    one(
      'a dictionary of a file',
      dictionary('d1', `FILE(PATH '${secret}' FORMAT 'TSV')`),
      "SELECT dictGet('w.d1', 'v', toUInt64(1))",
    ),
    reaching(
      'the rows of Template',
      `SELECT 1 AS x FORMAT Template SETTINGS format_template_resultset = '${secret}', format_template_row_format = ''`,
    ),
    one('a schema of Protobuf', `SELECT 1 AS x FORMAT Protobuf SETTINGS format_schema = '${secret}:M'`),
    one("a schema of Cap'n Proto", `SELECT 1 AS x FORMAT CapnProto SETTINGS format_schema = '${secret}:M'`),
    one('a schema in a format file', from(`format(Protobuf, 'x UInt8', 'a') SETTINGS format_schema = '${secret}:M'`)),

    reaching('OUTFILE', `SELECT 1 INTO OUTFILE '${out}/outfile' FORMAT TSV`),
    reaching('an insert into file()', `INSERT INTO FUNCTION file('${out}/inserted', 'TSV', 'x UInt8') SELECT 1`),
    reaching(
      'an insert into a table of File',
      `CREATE TABLE w.f2 (x UInt8) ENGINE = File(TSV, '${out}/table')`,
      'INSERT INTO w.f2 SELECT 1',
    ),
    reaching(
      'the file of errors',
      "SELECT * FROM format(TSV, 'x UInt8', 'no\\n1\\n') SETTINGS input_format_allow_errors_num = 5, " +
        `input_format_record_errors_file_path = '${out}/errors'`,
    ),
    reaching(
      'a disk of its own',
      `CREATE TABLE w.m1 (x UInt8) ENGINE = MergeTree ORDER BY x SETTINGS disk = disk(type = local, path = '${out}/disk/')`,
      'INSERT INTO w.m1 SELECT 1',
    ),
    one('a backup to a file', `BACKUP TABLE w.kept TO File('${out}/backup')`),
    one('a backup to a disk', "BACKUP TABLE w.kept TO Disk('default', 'backup')"),
    one('a backup from a file', `RESTORE TABLE w.kept AS w.restored FROM File('${canary}')`),
    one(
      'a cache on disk',
      `CREATE TABLE w.m2 (x UInt8) ENGINE = MergeTree ORDER BY x SETTINGS disk = disk(type = cache, path = '${out}/cache/', max_size = '1Mi', disk = 'default')`,
    ),
    one(
      'a log in a folder',
      `CREATE TABLE w.tl (x UInt8) ENGINE = Log SETTINGS disk = disk(type = local, path = '${out}/log/')`,
      'INSERT INTO w.tl SELECT 1',
    ),

    reaching('url()', from(`url('${web}/x', 'LineAsString')`)),
    reaching('an insert into url()', `INSERT INTO FUNCTION url('${web}/x', 'TSV', 'x UInt8') SELECT 1`),
    reaching(
      'a table of the engine URL',
      `CREATE TABLE w.u1 (l String) ENGINE = URL('${web}/x', 'LineAsString')`,
      from('w.u1'),
    ),
    reaching('s3()', from(`s3('${web}/bucket/k', 'a', 'b', 'TSV', 'x String')`)),
    reaching('gcs()', from(`gcs('${web}/bucket/k', 'a', 'b', 'TSV', 'x String')`)),
    reaching(
      'azureBlobStorage()',
      from(`azureBlobStorage('${web}', 'c', 'b', 'a', 'a2V5', 'TSV', 'none', 'x String')`),
    ),
    reaching('hdfs()', from(`hdfs('hdfs://${host}/x', 'TSV', 'x String')`)),
    reaching('iceberg()', from(`iceberg('${web}/bucket/k', 'a', 'b')`)),
    reaching('hudi()', from(`hudi('${web}/bucket/k', 'a', 'b')`)),
    reaching(
      'a disk of S3',
      `CREATE TABLE w.m4 (x UInt8) ENGINE = MergeTree ORDER BY x SETTINGS disk = disk(type = s3, endpoint = '${web}/bucket/', access_key_id = 'a', secret_access_key = 'b')`,
    ),
    reaching('a backup to S3', `BACKUP TABLE w.kept TO S3('${web}/bucket/k', 'a', 'b')`),
    reaching(
      'a registry of schemas',
      `SELECT * FROM format(AvroConfluent, 'x UInt8', unhex('000000000100')) SETTINGS format_avro_schema_registry_url = '${web}'`,
    ),
    reaching('mysql()', from(`mysql('${host}', 'd', 't', 'u', 'p')`)),
    reaching('postgresql()', from(`postgresql('${host}', 'd', 't', 'u', 'p')`)),
    reaching('mongodb()', from(`mongodb('${host}', 'd', 't', 'u', 'p', 'x String')`)),
    reaching('redis()', from(`redis('${host}', 'k', 'k String, v String')`)),
    reaching('remote()', from(`remote('${host}', 'system', 'one')`)),
    reaching('remoteSecure()', from(`remoteSecure('${host}', 'system', 'one')`)),
    one('Kafka', `CREATE TABLE w.k1 (l String) ENGINE = Kafka('${host}', 't', 'g', 'LineAsString')`, from('w.k1')),
    one(
      'NATS',
      `CREATE TABLE w.n1 (l String) ENGINE = NATS SETTINGS nats_url = '${host}', nats_subjects = 's', nats_format = 'LineAsString'`,
    ),
    one(
      'RabbitMQ',
      `CREATE TABLE w.r1 (l String) ENGINE = RabbitMQ SETTINGS rabbitmq_host_port = '${host}', rabbitmq_exchange_name = 'e', rabbitmq_format = 'LineAsString'`,
    ),
    one('arrowFlight()', from(`arrowFlight('${host}', 'x')`)),
    reaching('a database of MySQL', `CREATE DATABASE wmy ENGINE = MySQL('${host}', 'd', 'u', 'p')`),
    reaching(
      'a database of PostgreSQL',
      `CREATE DATABASE wpg ENGINE = PostgreSQL('${host}', 'd', 'u', 'p')`,
      'SHOW TABLES FROM wpg',
    ),
    reaching(
      'a dictionary by HTTP',
      dictionary('d2', `HTTP(URL '${web}/d' FORMAT 'TSV')`),
      "SELECT dictGet('w.d2', 'v', toUInt64(1))",
    ),
    reaching(
      'a dictionary of a server',
      dictionary('d3', `CLICKHOUSE(HOST '127.0.0.1' PORT ${tcp} USER 'u' TABLE 't' DB 'd')`),
      "SELECT dictGet('w.d3', 'v', toUInt64(1))",
    ),
    reaching(
      'a dictionary of MySQL',
      dictionary('d4', `MYSQL(HOST '127.0.0.1' PORT ${tcp} USER 'u' PASSWORD 'p' DB 'd' TABLE 't')`),
      "SELECT dictGet('w.d4', 'v', toUInt64(1))",
    ),
    reaching(
      'a dictionary of Redis',
      dictionary('d5', `REDIS(HOST '127.0.0.1' PORT ${tcp})`),
      "SELECT dictGet('w.d5', 'v', toUInt64(1))",
    ),

    one('executable()', from("executable('run.sh', 'TSV', 'x String')")),
    one(
      'executable() by the parent folders',
      from(`executable('../../../../../../..${canary}/run.sh', 'TSV', 'x String')`),
    ),
    one(
      'a table of the engine Executable',
      "CREATE TABLE w.e1 (x String) ENGINE = Executable('run.sh', 'TSV')",
      from('w.e1'),
    ),
    reaching(
      'a dictionary of a program',
      dictionary('d6', `EXECUTABLE(COMMAND 'cat ${secret}' FORMAT 'TSV')`),
      "SELECT dictGet('w.d6', 'v', toUInt64(1))",
    ),
    one('a function in WebAssembly', `CREATE FUNCTION wasm LANGUAGE WASM FROM '${secret}'`),

    { what: 'deltaLake()', statements: [from(`deltaLake('${web}/bucket/k', 'a', 'b')`)], reaches: true, endless: true },
    {
      what: 'a disk of the web',
      statements: [
        `CREATE TABLE w.m3 (x UInt8) ENGINE = MergeTree ORDER BY x SETTINGS disk = disk(type = web, endpoint = '${web}/d/')`,
      ],
      reaches: true,
      endless: true,
    },
    { what: 'reloading what reaches out', statements: ['SYSTEM RELOAD DICTIONARIES'], reaches: true, endless: true },
  ]
}

function dictionary(name: string, source: string): string {
  return `CREATE DICTIONARY w.${name} (k UInt64, v String) PRIMARY KEY k SOURCE(${source}) LAYOUT(FLAT()) LIFETIME(0)`
}
