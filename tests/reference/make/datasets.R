# datasets.json: what the shipped data sets are in the R packages that they were taken from: rows, kinds of columns, sums,
# and levels. Data sets of packages that are not installed keep what is stored (a line says so).
# Run in this directory: Rscript datasets.R

source("common.R")

catalog <- read_json("../../../lme4py/data/datasets/catalog.json")
stored <- read_json("../datasets.json")

crc32 <- function(levels) {
  hex <- digest::digest(paste(enc2utf8(levels), collapse = "\n"), algo = "crc32", serialize = FALSE)
  sum(strtoi(strsplit(hex, "")[[1]], 16L) * 16^(rev(seq_along(strsplit(hex, "")[[1]])) - 1))
}

describe_column <- function(x, kind) {
  missing <- sum(is.na(x))
  if (is.factor(x)) return(list(
    kind = if (is.ordered(x)) "ordered" else "factor", n_missing = missing, n_levels = nlevels(x),
    first_levels = vec(head(levels(x), 5)), last_level = tail(levels(x), 1), levels_crc32 = crc32(levels(x)),
    code_sum = sum(as.integer(x), na.rm = TRUE)))
  # A column of whole numbers is an integer where R stores it so and nothing is missing.
  list(kind = if (is.integer(x) && !missing) "integer" else "numeric", n_missing = missing, sum = sum(x, na.rm = TRUE),
       abs_sum = sum(abs(x), na.rm = TRUE))
}

describe <- function(name) {
  entry <- catalog[[name]]
  package <- sub("R package ", "", entry$taken_from)
  if (!requireNamespace(package, quietly = TRUE)) {
    message(name, ": package ", package, " is not installed; what is stored is kept")
    return(keep(stored[[name]]))
  }
  place <- new.env()
  utils::data(list = name, package = package, envir = place)
  found <- if (exists(name, place, inherits = FALSE)) get(name, place) else getExportedValue(package, name)
  found <- as.data.frame(found)
  columns <- vapply(entry$columns, `[[`, "", "name")
  list(rows = nrow(found), columns = lapply(setNames(nm = columns), function(column) describe_column(found[[column]])))
}

keep <- function(entry) {
  entry$columns <- lapply(entry$columns, function(column) {
    if (!is.null(column$first_levels)) column$first_levels <- vec(unlist(column$first_levels))
    column
  })
  entry
}

write_reference("datasets.json", lapply(setNames(nm = names(catalog)), describe))
