# What the workers in R share. Requests and answers as in protocol.py.

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
  list(
    formula = fields[5], reml = fields[3] == "TRUE", family = fields[6], link = fields[7],
    nagq = as.integer(fields[8]), action = fields[10], detail = fields[11], data = data
  )
}

# Does once what `fit`, a function of the task, does.
fit_once <- function(fit, task) {
  warned <- character()
  # proc.time() has a resolution of one millisecond, which is too coarse for the small fits.
  start <- Sys.time()
  model <- withCallingHandlers(
    fit(task),
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

row_task <- function(fit, task) {
  answer(seconds = sprintf("%.9f", median(vapply(1:15, function(i) fit_once(fit, task)$seconds, 0))))
}

numbers <- function(block) {
  paste0("[", paste(ifelse(is.na(block), "NaN", sprintf("%.12g", block)), collapse = ", "), "]")
}

json <- function(value) {
  if (is.na(value)) "null" else if (is.logical(value)) tolower(value) else sprintf("%.10f", value)
}

fit_task <- function(fit, describe, task) {
  invisible(gc())
  done <- fit_once(fit, task)
  told <- describe(done$model, task)
  answer(
    seconds = sprintf("%.9f", done$seconds),
    criterion = json(told$criterion),
    evaluations = sprintf("%d", as.integer(told$evaluations)),
    converged = json(told$converged),
    singular = json(told$singular),
    warnings = paste0("[", paste(vapply(done$warned, quoted, ""), collapse = ", "), "]")
  )
}

# What is asked of a model that is fitted beforehand. `action` gives blocks of numbers; where it did only a part of the
# replicates, their attribute "scale" says by what the time is to be multiplied.
action_task <- function(fit, action, task) {
  if (is.null(action)) stop("not in this program")
  model <- suppressMessages(suppressWarnings(fit(task)))
  invisible(gc())
  done <- fit_once(function(task) action(model, task), task)
  scale <- attr(done$model, "scale")
  blocks <- vapply(done$model, function(b) numbers(b), "")
  answer(
    seconds = sprintf("%.9f", done$seconds * if (is.null(scale)) 1 else scale),
    values = paste0("[", paste(blocks, collapse = ", "), "]"),
    warnings = paste0("[", paste(vapply(unique(done$warned), quoted, ""), collapse = ", "), "]")
  )
}

# Answers requests until standard input ends. `describe` makes of a fitted model and its task a list of criterion,
# evaluations, converged and singular; the first and the last two may be NA. `actions` are functions of a model and a
# task, by name.
serve <- function(package, fit, describe = NULL, actions = list()) {
  versions <- paste0(
    "{\"R\": ", quoted(paste(R.version$major, R.version$minor, sep = ".")),
    ", ", quoted(package), ": ", quoted(packageDescription(package)$Version), "}"
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
        row_task(fit, task)
      } else if (task$action != "fit") {
        action_task(fit, actions[[task$action]], task)
      } else {
        fit_task(fit, describe, task)
        invisible(gc())
      },
      error = function(e) answer(error = quoted(conditionMessage(e)))
    )
  }
}
