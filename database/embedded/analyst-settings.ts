/**
 * Settings that an analyst may choose, in the address of a request or in the outermost SETTINGS clause of a statement.
 *
 * Every one is named here with the values it takes. None of them holds SQL, a path, an address, a schema or a template, none
 * lifts a limit, and none lets one analyst see what another asked (`use_query_cache`, ClickHouse issue 117226).
 */
import { isZoneOfFile } from './analyst-texts.ts'
import { EngineError } from './engine-error.ts'
import { type EngineToken, isWord } from './engine-tokens.ts'

export interface Setting {
  readonly name: string
  readonly value: string
}

/** Limits of one analyst query; a client may set smaller ones. */
export interface AnalystLimits {
  readonly secondsMax: number
  readonly memoryBytesMax: number
  readonly threadsMax: number
  /** Of a result in a format that can only be sent whole. */
  readonly resultBytesMax: number
}

export interface AskedSettings {
  /** Of the address. Above a limit they are cut to it. */
  readonly address: readonly Setting[]
  /** Of the statement's own clause, which wins. It runs as it stands, so above a limit it is refused. */
  readonly clause: readonly Setting[]
  /** The result is sent whole. */
  readonly whole: boolean
}

/** The values that a setting may have here, and how an error says it. */
interface Values {
  readonly are: RegExp
  readonly said: string
}

const SWITCH = { are: /^(?:0|1|true|false)$/i, said: '0 or 1' }
const COUNT = { are: /^\d{1,18}$/, said: 'a whole number' }
/** A larger block would be taken into memory whole. */
const BLOCK = { are: /^[1-9]\d{0,5}$/, said: 'a number from 1 to 999999' }
/** The name of a time zone is no path: no dot, no slash at its head. */
const ZONE = {
  are: /^(?:[A-Za-z][\w+-]{0,31}(?:\/[A-Za-z][\w+-]{0,31}){0,2})?$/,
  said: 'the name of a time zone, as Europe/Berlin',
}
/** Shown in results only. */
const SHORT_TEXT = { are: /^[^\x00-\x1f\x7f'\\]{0,32}$/, said: 'up to 32 characters without quotes and backslashes' }
const COMMENT = { are: /^[^\x00-\x1f\x7f'\\]{0,512}$/, said: 'up to 512 characters without quotes and backslashes' }

const ALLOWED: ReadonlyMap<string, Values> = new Map([
  ...allow(SWITCH, [
    'extremes final join_use_nulls group_by_use_nulls transform_null_in any_join_distinct_right_table_keys',
    'use_client_time_zone prefer_column_name_to_alias allow_experimental_analyzer enable_analyzer decimal_check_overflow',
    'asterisk_include_alias_columns asterisk_include_materialized_columns asterisk_include_virtual_columns',
    'empty_result_for_aggregation_by_empty_set empty_result_for_aggregation_by_constant_keys_on_empty_set',
    'enable_optimize_predicate_expression optimize_read_in_order optimize_aggregation_in_order optimize_distinct_in_order',
    'optimize_move_to_prewhere optimize_trivial_count_query optimize_use_projections optimize_skip_unused_shards',
    'optimize_respect_aliases optimize_functions_to_subcolumns select_sequential_consistency',
    'output_format_json_quote_64bit_integers output_format_json_quote_64bit_floats output_format_json_quote_denormals',
    'output_format_json_quote_decimals output_format_json_escape_forward_slashes output_format_json_array_of_rows',
    'output_format_json_named_tuples_as_objects output_format_json_skip_null_value_in_named_tuples',
    'output_format_json_map_as_array_of_tuples output_format_json_validate_utf8 output_format_json_pretty_print',
    'output_format_write_statistics output_format_decimal_trailing_zeros output_format_trim_fixed_string',
    'output_format_binary_encode_types_in_binary_format output_format_binary_write_json_as_string',
    'output_format_native_encode_types_in_binary_format output_format_native_write_json_as_string',
    'output_format_native_use_flattened_dynamic_and_json_serialization low_cardinality_allow_in_native_format',
    'output_format_csv_crlf_end_of_line output_format_tsv_crlf_end_of_line output_format_parallel_formatting',
    'output_format_csv_serialize_tuple_into_separate_columns output_format_values_escape_quote_with_quote',
    'output_format_arrow_string_as_string output_format_arrow_low_cardinality_as_dictionary',
    'output_format_arrow_fixed_string_as_fixed_byte_array output_format_arrow_use_64_bit_indexes_for_dictionary',
    'output_format_parquet_string_as_string output_format_parquet_date_as_uint16 output_format_parquet_datetime_as_uint32',
    'output_format_parquet_fixed_string_as_fixed_byte_array output_format_parquet_enum_as_byte_array',
    'output_format_orc_string_as_string output_format_pretty_row_numbers output_format_pretty_highlight_digit_groups',
    'output_format_markdown_escape_special_characters output_format_sql_insert_include_column_names',
    'output_format_sql_insert_quote_names output_format_sql_insert_use_replace output_format_bson_string_as_string',
    'output_format_always_write_decimal_point_in_float_and_decimal output_format_enable_streaming',
    'output_format_csv_header_serialize_tuple_into_separate_columns output_format_arrow_date_as_uint16',
    'output_format_arrow_unsupported_types_as_binary output_format_arrow_use_signed_indexes_for_dictionary',
    'output_format_arrow_uuid_as_fixed_byte_array output_format_arrow_variant_as_string',
    'output_format_parquet_compliant_nested_types output_format_parquet_unsupported_types_as_binary',
    'output_format_parquet_write_bloom_filter output_format_parquet_write_page_index output_format_parquet_write_checksums',
    'output_format_pretty_fallback_to_vertical output_format_pretty_highlight_trailing_spaces',
    'output_format_pretty_multiline_fields output_format_pretty_named_tuples_as_json',
    'output_format_pretty_use_nbsp_for_padding optimize_read_in_window_order optimize_use_implicit_projections',
  ]),
  ...allow(COUNT, [
    'max_execution_time max_memory_usage max_threads max_result_rows max_result_bytes max_rows_to_read max_bytes_to_read',
    'max_rows_to_group_by max_rows_in_join max_rows_to_sort max_rows_in_set max_rows_in_distinct limit offset',
    'timeout_before_checking_execution_speed output_format_pretty_max_rows output_format_pretty_max_value_width',
    'output_format_pretty_max_column_pad_width output_format_float_precision cross_to_inner_join_rewrite',
    'output_format_pretty_display_footer_column_names output_format_pretty_display_footer_column_names_min_rows',
    'output_format_pretty_fallback_to_vertical_max_rows_per_chunk output_format_pretty_fallback_to_vertical_min_columns',
    'output_format_pretty_fallback_to_vertical_min_table_width output_format_pretty_single_large_number_tip_threshold',
    'output_format_pretty_max_column_name_width_cut_to output_format_pretty_max_column_name_width_min_chars_to_cut',
    'output_format_pretty_max_value_width_apply_for_single_value',
  ]),
  ...allow(BLOCK, ['max_block_size output_format_parquet_row_group_size output_format_sql_insert_max_batch_size']),
  ...allow(oneOf('throw', 'break'), [
    'read_overflow_mode result_overflow_mode timeout_overflow_mode sort_overflow_mode set_overflow_mode',
    'join_overflow_mode distinct_overflow_mode transfer_overflow_mode',
  ]),
  ...allow(oneOf('throw', 'break', 'any'), ['group_by_overflow_mode']),
  ...allow(oneOf('simple', 'iso', 'unix_timestamp'), ['date_time_output_format']),
  ...allow(oneOf('basic', 'best_effort', 'best_effort_us'), ['date_time_input_format']),
  ...allow(oneOf('ANY', 'ALL'), ['join_default_strictness']),
  ...allow(oneOf('auto', '0', '1'), ['output_format_pretty_color']),
  ...allow(oneOf('UTF-8', 'ASCII'), ['output_format_pretty_grid_charset']),
  ...allow(oneOf('1\\.0', '2\\.4', '2\\.6', '2\\.latest'), ['output_format_parquet_version']),
  ...allow(oneOf('none', 'lz4', 'lz4_frame', 'snappy', 'zstd', 'gzip', 'brotli', 'zlib'), [
    'output_format_arrow_compression_method output_format_parquet_compression_method output_format_orc_compression_method',
  ]),
  ...allow(ZONE, ['session_timezone']),
  ...allow(SHORT_TEXT, [
    'format_csv_delimiter format_csv_null_representation format_tsv_null_representation bool_true_representation',
    'bool_false_representation',
  ]),
  ...allow(COMMENT, ['log_comment']),
])

/** chDB switches these on, a server does not: functions that show the engine's own code, and statements without SELECT. */
const FIXED: readonly (readonly [string, string])[] = [
  ['allow_introspection_functions', '0'],
  ['implicit_select', '0'],
]

function allow(values: Values, names: readonly string[]): [string, Values][] {
  return names.flatMap(line => line.split(' ')).map(name => [name, values])
}

function oneOf(...values: readonly string[]): Values {
  return { are: new RegExp(`^(?:${values.join('|')})$`, 'i'), said: `one of ${values.join(', ')}` }
}

/** Names of all settings that analysts may choose, for the test that holds them against the engine's own list. */
export const SETTINGS_ALLOWED: readonly string[] = [...ALLOWED.keys()]

/**
 * The settings of an analyst's connection, before it is made read-only. Throws 164 for one that is not allowed, as a server
 * does for a read-only user, and for a value that it may not have.
 */
export function analystSettings({ address, clause, whole }: AskedSettings, limits: AnalystLimits): Setting[] {
  for (const setting of [...address, ...clause]) refuseSetting(setting)
  const caps = new Map([
    ['max_execution_time', limits.secondsMax],
    ['max_memory_usage', limits.memoryBytesMax],
    ['max_threads', limits.threadsMax],
    ['max_temporary_data_on_disk_size_for_query', limits.memoryBytesMax],
    ...(whole ? [['max_result_bytes', limits.resultBytesMax] as const] : []),
  ])
  for (const { name, value } of clause) {
    const cap = caps.get(name)
    if (cap !== undefined && smaller(value, cap) !== Number(value))
      throw new EngineError(164, `The setting ${name} may be from 1 to ${cap} here; in the address more is cut to that`)
  }
  const asked = new Map([...address, ...clause].map(({ name, value }) => [name, value]))
  for (const [name, cap] of caps) asked.set(name, String(smaller(asked.get(name), cap)))
  return [...FIXED, ...asked].map(([name, value]) => ({ name, value }))
}

/** The head of the message before it is ClickHouse's own, which clients know. */
const SAID = 'leave it out: docs/ANALYSTS.md tells which settings analysts may choose'

function refuseSetting({ name, value }: Setting): void {
  const values = ALLOWED.get(name)
  if (values === undefined) throw new EngineError(164, `Cannot modify '${name}' setting in readonly mode; ${SAID}`)
  // `getSetting` would give it back as a text.
  if (!values.are.test(value) || isZoneOfFile(value))
    throw new EngineError(164, `The setting ${name} takes ${values.said} here`)
}

/** In these settings 0 means no limit, so it is the greatest. */
function smaller(asked: string | undefined, cap: number): number {
  const value = Number(asked)
  return value > 0 && value < cap ? value : cap
}

/**
 * The settings of the outermost clause, the last of the statement but for FORMAT. Throws 164 for the bare word anywhere else:
 * a clause in a subquery escapes read-only (ClickHouse issue 116028). Behind a dot it is a name, as in `system.settings`.
 */
export function clauseSettings(tokens: readonly EngineToken[]): Setting[] {
  const isList = isListOfSettings(tokens)
  const at = tokens.flatMap((_, index) => (isClause(tokens, index) && !isList(index) ? [index] : []))
  const start = at[0]
  if (start === undefined) return []
  const inside = depthAt(tokens, start) > 0
  const read = inside || at.length > 1 ? null : readClause(tokens.slice(start + 1))
  if (read !== null && new Set(read.map(({ name }) => name)).size === read.length) return read
  throw new EngineError(
    164,
    'SETTINGS is open to analysts once, outside of all brackets, as the last clause, with names and plain values; ' +
      'a column of that name is written in quotes',
  )
}

function isClause(tokens: readonly EngineToken[], at: number): boolean {
  return isWord(tokens[at], 'SETTINGS') && tokens[at - 1]?.type !== 'Dot'
}

/** `SHOW [CHANGED] SETTINGS LIKE …`: whether the word at a place is that of the list. */
function isListOfSettings(tokens: readonly EngineToken[]): (at: number) => boolean {
  const place = isWord(tokens[1], 'CHANGED') ? 2 : 1
  const isList = isWord(tokens[0], 'SHOW') && isWord(tokens[place + 1], 'LIKE', 'ILIKE')
  return at => isList && at === place
}

/** Brackets of any kind that are open before a token. */
function depthAt(tokens: readonly EngineToken[], end: number): number {
  const opened = (start: string) => tokens.slice(0, end).filter(({ type }) => type.startsWith(start)).length
  return opened('Opening') - opened('Closing')
}

/** `name = value, …`, then the end or FORMAT and a name; null for all else. */
function readClause(tokens: readonly EngineToken[]): Setting[] | null {
  const settings: Setting[] = []
  for (let at = 0; ; at += 4) {
    const [name, equals, value, next] = tokens.slice(at, at + 4)
    const plain = value === undefined ? null : plainValue(value)
    if (name?.type !== 'BareWord' || equals?.type !== 'Equals' || plain === null) return null
    settings.push({ name: name.text, value: plain })
    if (next?.type === 'Comma') continue
    const rest = tokens.slice(at + 3)
    const format = rest.length === 2 && isWord(rest[0], 'FORMAT') && rest[1]?.type === 'BareWord'
    return rest.length === 0 || format ? settings : null
  }
}

/** A number, a switch or a short text without escapes; null for all else, a parameter among it. */
function plainValue({ text, type }: EngineToken): string | null {
  // Whether it may be one of that setting is judged with its name.
  if (type === 'Number') return text
  if (type === 'BareWord' && SWITCH.are.test(text)) return text.toLowerCase() === 'true' ? '1' : '0'
  if (type === 'StringLiteral' && /^'[^'\\]{0,512}'$/.test(text)) return text.slice(1, -1)
  return null
}
