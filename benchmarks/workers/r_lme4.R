# Worker that fits with R's lme4. Requests and answers as in protocol.py.

suppressPackageStartupMessages(library(lme4))

root <- commandArgs(trailingOnly = TRUE)[1]

quoted <- function(text) {
  text <- gsub("[\r\n]+", " ", text)
  paste0("\"", gsub("([\"\\\\])", "\\\\\\1", text), "\"")
}

answer <- function(...) {
  fields <- list(...)
  cat("{", paste0("\"", names(fields), "\": ", unlist(fields), collapse = ", "), "}\n", sep = "")
  flush(stdout())
}

read_column <- function(folder, name, kind, n_levels) {
  path <- file.path(folder, paste0(name, ".bin"))
  what <- if (kind == "numeric") "double" else "integer"
  size <- if (kind == "numeric") 8L else 4L
  values <- readBin(path, what, n = file.size(path) / size, size = size, endian = "little")
  if (kind == "numeric") return(values)
  listed <- file.path(folder, paste0(name, ".levels"))
  levels <- if (file.exists(listed)) readLines(listed, encoding = "UTF-8") else sprintf("%d", seq_len(n_levels))
  class <- if (kind == "ordered") c("ordered", "factor") else "factor"
  structure(values + 1L, levels = levels, class = class)
}

load_task <- function(name) {
  listed <- strsplit(readLines(file.path(root, "models.tsv")), "\t", fixed = TRUE)
  fields <- Filter(function(f) f[1] == name, listed)[[1]]
  folder <- file.path(root, fields[2])
  used <- strsplit(fields[4], ",", fixed = TRUE)[[1]]
  schema <- strsplit(readLines(file.path(folder, "schema.tsv")), "\t", fixed = TRUE)
  schema <- Filter(function(s) s[1] %in% used, schema)
  columns <- lapply(schema, function(s) read_column(folder, s[1], s[2], as.integer(s[3])))
  names(columns) <- vapply(schema, `[`, "", 1)
  data <- as.data.frame(columns, optional = TRUE)
  list(formula = fields[5], reml = fields[3] == "TRUE", data = data)
}

fit_once <- function(task) {
  warned <- character()
  # proc.time() has a resolution of one millisecond, which is too coarse for the small fits.
  start <- Sys.time()
  model <- withCallingHandlers(
    lmer(as.formula(task$formula), task$data, REML = task$reml),
    warning = function(w) {
      warned <<- c(warned, conditionMessage(w))
      invokeRestart("muffleWarning")
    },
    message = function(m) {
      warned <<- c(warned, conditionMessage(m))
      invokeRestart("muffleMessage")
    }
  )
  seconds <- as.numeric(difftime(Sys.time(), start, units = "secs"))
  list(seconds = seconds, model = model, warned = warned)
}

row_task <- function(task) {
  answer(seconds = sprintf("%.9f", median(vapply(1:15, function(i) fit_once(task)$seconds, 0))))
}

fit_task <- function(task) {
  invisible(gc())
  done <- fit_once(task)
  model <- done$model
  answer(
    seconds = sprintf("%.9f", done$seconds),
    criterion = sprintf("%.10f", -2 * as.numeric(logLik(model))),
    evaluations = sprintf("%d", as.integer(model@optinfo$feval)),
    converged = if (length(model@optinfo$conv$lme4) > 0 && !isSingular(model)) "false" else "true",
    singular = if (isSingular(model)) "true" else "false",
    warnings = paste0("[", paste(vapply(done$warned, quoted, ""), collapse = ", "), "]")
  )
}

versions <- paste0(
  "{\"R\": ", quoted(paste(R.version$major, R.version$minor, sep = ".")),
  ", \"lme4\": ", quoted(packageDescription("lme4")$Version), "}"
)
answer(versions = versions, pid = Sys.getpid())

input <- file("stdin")
open(input)
task <- NULL
while (length(line <- readLines(input, n = 1L)) > 0) {
  request <- strsplit(line, " ", fixed = TRUE)[[1]]
  tryCatch(
    if (request[1] == "load") {
      task <- load_task(request[2])
      invisible(gc())
      answer(loaded = quoted(request[2]))
    } else if (request[1] == "row") {
      row_task(task)
    } else {
      fit_task(task)
      invisible(gc())
    },
    error = function(e) answer(error = quoted(conditionMessage(e)))
  )
}
