# What the scripts of this directory share. Each is run in this directory and writes one file of ../ (or of the
# directory REFERENCE_OUT, where ../README.md says how it is compared with the stored one).

suppressPackageStartupMessages(library(jsonlite))

versions <- function(...) {
  named <- vapply(c(...), function(p) paste(p, packageVersion(p)), "")
  paste0("R ", getRversion(), ", ", paste(named, collapse = ", "))
}

out_path <- function(name) file.path(Sys.getenv("REFERENCE_OUT", ".."), name)

# Numbers with all their digits; vectors of one element become numbers (not within I()), missing ones null.
write_reference <- function(name, content) {
  text <- toJSON(content, auto_unbox = TRUE, digits = NA, na = "null", null = "null", matrix = "rowmajor",
                 dataframe = "columns")
  connection <- if (grepl("\\.gz$", name)) gzfile(out_path(name), "w") else file(out_path(name), "w")
  on.exit(close(connection))
  writeLines(text, connection)
}

# --- data -----------------------------------------------------------------------------------------------------------

catalogs <- list(
  list(directory = "../data", columns = lapply(read_json("../data/schema.json"), `[[`, "columns")),
  list(directory = "../../../lme4py/data/datasets",
       columns = lapply(read_json("../../../lme4py/data/datasets/catalog.json"), `[[`, "columns")))

# A data set of ../data, or one that is shipped with the package: factors with their levels in order.
read_data <- function(name) {
  for (catalog in catalogs) if (name %in% names(catalog$columns)) {
    cells <- read.csv(file.path(catalog$directory, paste0(name, ".csv.gz")), colClasses = "character",
                      na.strings = "", check.names = FALSE)
    columns <- catalog$columns[[name]]
    out <- lapply(columns, function(spec) convert(cells[[spec$name]], spec))
    names(out) <- vapply(columns, `[[`, "", "name")
    return(as.data.frame(out, check.names = FALSE, stringsAsFactors = FALSE))
  }
  stop("no data set ", name)
}

convert <- function(cells, spec) {
  levels <- unlist(spec$levels)
  if (is.numeric(levels)) levels <- as.character(seq_len(levels)) # the number n stands for "1", ..., "n"
  switch(spec$kind, factor = factor(cells, levels = levels), ordered = factor(cells, levels = levels, ordered = TRUE),
         logical = as.logical(cells), string = cells, as.numeric(cells))
}

# --- optima ---------------------------------------------------------------------------------------------------------

# The better of two optimisers with tight tolerances.
best_lmer <- function(formula, data, REML = TRUE) {
  fit <- function(optimizer, control) suppressMessages(suppressWarnings(eval(bquote(lme4::lmer(
    .(formula), data, REML = .(REML), control = lme4::lmerControl(
      optimizer = .(optimizer), optCtrl = .(control), calc.derivs = FALSE, check.conv.singular = "ignore",
      check.nobs.vs.nRE = "ignore", check.nobs.vs.nlev = "ignore"))))))
  fits <- list(fit("bobyqa", list(rhoend = 1e-10, maxfun = 1e5)),
               fit("nloptwrap", list(xtol_abs = 1e-12, ftol_abs = 1e-14, maxeval = 1e5)))
  fits[[which.min(vapply(fits, function(m) lme4::getME(m, "devcomp")$cmp[[if (REML) "REML" else "dev"]], 0))]]
}
