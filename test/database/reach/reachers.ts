/**
 * All that can reach out of the tables that are open: table functions, engines by their functions, names of tables, scalar
 * functions and settings. Each is a piece of SQL; `forms.ts` puts it into statements.
 */
import type { Canaries } from './canaries.ts'

/** `name` and what stands in its brackets; forms need them apart. */
export interface Call {
  readonly name: string
  readonly args: string
}

const text = (value: string) => `'${value.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`

/** Functions that stand where a table does. */
export function tableCalls(on: Canaries): Call[] {
  const { file, host, url, folder } = on
  const [address, port] = host.split(':')
  const csv = `${text(file)}, 'CSV', 'token String'`
  const s3 = `${text(url)}, 'k', 's', 'CSV', 'token String'`
  const azure = `${text(`DefaultEndpointsProtocol=http;AccountName=a;AccountKey=a2V5;BlobEndpoint=http://${host}/a`)}, 'c', 'b', 'CSV', 'auto', 'token String'`
  const hdfs = `${text(`hdfs://${host}/canary.csv`)}, 'CSV', 'token String'`
  const login = `${text(host)}, 'd', 't', 'u', 'p'`
  const lake = `${text(`http://${host}/bucket/table/`)}, 'k', 's'`
  return [
    { name: 'file', args: text(file) },
    { name: 'file', args: csv },
    { name: 'file', args: `${text(file)}, 'LineAsString'` },
    { name: 'file', args: text(on.inside) },
    ...on.relative.map(path => ({ name: 'file', args: text(path) })),
    { name: 'file', args: text(`${folder}/*.csv`) },
    { name: 'file', args: text('/proc/self/environ') },
    { name: 'fileCluster', args: `'default', ${csv}` },
    { name: 'filesystem', args: text(folder) },
    { name: 'url', args: `${text(url)}, 'CSV', 'token String'` },
    { name: 'url', args: text(url) },
    { name: 'url', args: `${text(`file://${file}`)}, 'CSV', 'token String'` },
    { name: 'urlCluster', args: `'default', ${text(url)}, 'CSV', 'token String'` },
    { name: 's3', args: s3 },
    { name: 's3', args: `${text(url)}, NOSIGN, 'CSV', 'token String'` },
    { name: 's3Cluster', args: `'default', ${s3}` },
    { name: 'gcs', args: s3 },
    { name: 'oss', args: s3 },
    { name: 'cosn', args: s3 },
    { name: 'hdfs', args: hdfs },
    { name: 'hdfsCluster', args: `'default', ${hdfs}` },
    { name: 'azureBlobStorage', args: azure },
    { name: 'azureBlobStorageCluster', args: `'default', ${azure}` },
    ...['iceberg', 'icebergS3', 'deltaLake', 'deltaLakeS3', 'hudi', 'paimon', 'paimonS3'].map(name => ({
      name,
      args: lake,
    })),
    ...[
      'icebergCluster',
      'icebergS3Cluster',
      'deltaLakeCluster',
      'deltaLakeS3Cluster',
      'hudiCluster',
      'paimonCluster',
    ].map(name => ({ name, args: `'default', ${lake}` })),
    ...['icebergLocal', 'deltaLakeLocal', 'paimonLocal'].map(name => ({ name, args: text(folder) })),
    ...['icebergAzure', 'deltaLakeAzure', 'paimonAzure'].map(name => ({ name, args: azure })),
    ...['icebergHDFS', 'paimonHDFS'].map(name => ({ name, args: text(`hdfs://${host}/table`) })),
    { name: 'remote', args: `${text(host)}, 'system.one'` },
    { name: 'remote', args: `${text(host)}, system.one` },
    { name: 'remoteSecure', args: `${text(host)}, 'system', 'one'` },
    { name: 'cluster', args: "'default', system.one" },
    { name: 'clusterAllReplicas', args: "'default', system.processes" },
    { name: 'mysql', args: login },
    { name: 'postgresql', args: login },
    { name: 'mongodb', args: `${login}, 'token String'` },
    { name: 'mongodb', args: `${text(`mongodb://${host}/d`)}, 't', 'token String'` },
    { name: 'redis', args: `${text(host)}, 'token', 'token String, b String'` },
    { name: 'sqlite', args: `${text(file)}, 't'` },
    { name: 'odbc', args: `'Driver=x;Server=${address};Port=${port}', 'd', 't'` },
    { name: 'jdbc', args: `${text(`jdbc:mysql://${host}/`)}, 'd', 't'` },
    { name: 'ytsaurus', args: `${text(`http://${host}`)}, '//t', 'o', 'token String'` },
    { name: 'arrowstream', args: text(file) },
    { name: 'executable', args: `'cat ${file}', 'CSV', 'token String'` },
    { name: 'executable', args: "'id', 'TSV', 'token String'" },
    { name: 'eval', args: text(`SELECT * FROM file(${text(file)})`) },
    { name: 'loop', args: `file(${text(file)})` },
    { name: 'loop', args: "'system', 'processes'" },
    { name: 'merge', args: "'system', 'processes'" },
    { name: 'merge', args: "REGEXP('system|default'), 'processes'" },
    { name: 'merge', args: "'telemetry_internal', 'state'" },
    { name: 'merge', args: "'processes'" },
    { name: 'dictionary', args: "'d'" },
    { name: 'input', args: "'token String'" },
    { name: 'viewIfPermitted', args: `SELECT * FROM file(${text(file)}) ELSE null('token String')` },
    { name: 'viewExplain', args: `'EXPLAIN', '', (SELECT * FROM file(${text(file)}))` },
    { name: 'kql', args: `$$file(${text(file)})$$` },
    { name: 'fuzzQuery', args: text(`SELECT file(${text(file)})`) },
    { name: 'mergeTreeIndex', args: "'telemetry_internal', 'state'" },
    { name: 'mergeTreeProjection', args: "'telemetry_internal', 'state', 'p'" },
    { name: 'mergeTreeTextIndex', args: "'telemetry_internal', 'state', 'i'" },
    { name: 'mergeTreeAnalyzeIndexes', args: "'telemetry_internal', 'state'" },
    { name: 'prometheusQuery', args: "'telemetry', 'readings', 'up', now()" },
    { name: 'timeSeriesSelector', args: "'telemetry', 'readings', 'up', now(), now()" },
    { name: 'timeSeriesData', args: "'telemetry', 'readings'" },
  ]
}

/** Tables that show files, other people, the machine, or what is surgetank's own. */
export function closedTables(on: Canaries): string[] {
  const system =
    'processes errors stack_trace query_cache query_condition_cache metrics events asynchronous_inserts user_processes ' +
    'server_settings build_options clusters users roles grants quotas row_policies settings_profiles user_directories ' +
    'named_collections macros disks warnings symbols jemalloc_bins dns_cache certificates detached_parts remote_data_paths ' +
    'backups merges mutations moves replicas background_schedule_pool dropped_tables filesystem_cache models zookeeper ' +
    'query_log text_log trace_log session_log part_log crash_log processors_profile_log asynchronous_metrics'
  return [
    ...system.split(' ').map(name => `system.${name}`),
    'telemetry_internal.state',
    'telemetry_internal.readings_1m',
    'telemetry_internal.migrations',
    `default.\`${on.file}\``,
    `default.\`${on.inside}\``,
    'default.`http://localhost/x`',
  ]
}

/** Functions that stand where a value does. */
export function scalarCalls(on: Canaries): Call[] {
  const { file, host } = on
  return [
    { name: 'file', args: text(file) },
    { name: 'file', args: `${text(file)}, 'default'` },
    { name: 'file', args: text(on.inside) },
    ...on.relative.map(path => ({ name: 'file', args: text(path) })),
    { name: 'hasColumnInTable', args: `'default', ${text(file)}, 'token'` },
    { name: 'hasColumnInTable', args: `${text(host)}, 'default', ${text(file)}, 'token'` },
    { name: 'catboostEvaluate', args: `${text(file)}, 1.0` },
    { name: 'joinGet', args: "'telemetry_internal.state', 'device', 'x'" },
    { name: 'dictGet', args: "'d', 'a', 1" },
    { name: 'dictGetOrDefault', args: "'d', 'a', 1, 'x'" },
    { name: 'dictHas', args: "'d', 1" },
    { name: 'naiveBayesClassifier', args: "'m', 'text'" },
    { name: 'aiGenerate', args: "'prompt'" },
    { name: 'AIClassify', args: "'text', ['a', 'b']" },
    { name: 'addressToLine', args: 'toUInt64(1)' },
    { name: 'addressToLineWithInlines', args: 'toUInt64(1)' },
    { name: 'addressToSymbol', args: 'toUInt64(1)' },
    { name: 'demangle', args: "'_Z1fv'" },
    { name: 'flameGraph', args: '[toUInt64(1)]' },
    { name: 'getOSKernelVersion', args: '' },
    { name: 'serverUUID', args: '' },
    { name: 'buildId', args: '' },
    { name: 'tcpPort', args: '' },
    { name: 'getServerPort', args: "'http_port'" },
    { name: 'getServerSetting', args: "'max_server_memory_usage'" },
    { name: 'getMacro', args: "'replica'" },
    { name: 'getClientHTTPHeader', args: "'host'" },
    { name: 'showCertificate', args: '' },
    { name: 'filesystemAvailable', args: '' },
    { name: 'filesystemCapacity', args: "'default'" },
    { name: 'logTrace', args: "'x'" },
    { name: 'regionToName', args: 'toUInt32(1)' },
    { name: 'transactionID', args: '' },
    { name: 'zookeeperSessionUptime', args: '' },
    { name: 'generateSerialID', args: "'x'" },
    { name: '__getScalar', args: "'x'" },
  ]
}

/** Settings that hold SQL, a path, an address or a template, that undo a limit, or that show what others asked. */
export function settings(on: Canaries): [name: string, value: string][] {
  const read = `file(${text(on.file)}) != ''`
  return [
    ['readonly', '0'],
    ['readonly', '2'],
    ['allow_ddl', '1'],
    ['allow_introspection_functions', '1'],
    ['additional_table_filters', `{'system.one': ${text(read)}}`],
    ['additional_result_filter', text(read)],
    ['filter', text(read)],
    ['select', text(`file(${text(on.file)})`)],
    ['order', text(read)],
    ['sort', text(read)],
    ['implicit_table_at_top_level', text(`default.\`${on.file}\``)],
    ['format_schema', text(on.file)],
    ['format_schema_source', "'query'"],
    ['format_template_row', text(on.file)],
    ['format_template_resultset', text(on.file)],
    ['format_avro_schema_registry_url', text(on.url)],
    ['output_format_schema', text(on.target)],
    ['input_format_record_errors_file_path', text(on.target)],
    ['insert_keeper_fault_injection_seed', '1'],
    ['use_query_cache', '1'],
    ['query_cache_share_between_users', '1'],
    ['cluster_for_parallel_replicas', "'default'"],
    ['max_memory_usage', '0'],
    ['max_execution_time', '0'],
    ['max_threads', '64'],
    ['max_temporary_data_on_disk_size_for_query', '0'],
    ['max_rows_to_read', '-1'],
    ['workload', "'all'"],
    ['function_sleep_max_microseconds_per_block', '1000000000'],
    ['storage_file_read_method', "'mmap'"],
    ['engine_file_empty_if_not_exists', '1'],
    ['allow_experimental_eval_table_function', '1'],
    ['dialect', "'kusto'"],
    ['session_timezone', "'../../etc/passwd'"],
    ['log_comment', "'file:/etc/localtime'"],
    ['bool_true_representation', "'file:/etc/localtime'"],
  ]
}
