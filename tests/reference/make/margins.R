# margins.json.gz: means and their pairs by emmeans at polished optima.
# Run in this directory: Rscript margins.R [names]

suppressPackageStartupMessages({library(lme4); library(emmeans)})
source("common.R")
emm_options(lmerTest.limit = 1e5, pbkrtest.limit = 1e5)

table_of <- function(found) {
  frame <- as.data.frame(found)
  list(cols = lapply(as.list(frame), function(x) vec(if (is.factor(x)) as.character(x) else x)))
}

block <- function(m, wanted, ddf, kinds) {
  arguments <- list(m, as.formula(wanted$specs), at = if (is.null(wanted$at)) list() else lapply(wanted$at, unlist))
  if (ddf != "default") arguments$lmer.df <- ddf
  out <- list()
  for (kind in kinds) {
    scale <- if (grepl("response", kind)) "response" else "link"
    means <- quiet(do.call(emmeans, c(arguments, list(type = scale))))
    if (startsWith(kind, "means")) found <- summary(means, infer = c(TRUE, TRUE), type = scale)
    else found <- summary(pairs(means), infer = c(TRUE, TRUE), type = scale,
                          adjust = if (grepl("none", kind)) "none" else "tukey")
    out[[kind]] <- table_of(found)
  }
  out
}

describe <- function(name, model) {
  data <- read_data(model$data)
  if (model$family == "gaussian") m <- quiet(lmerTest::as_lmerModLmerTest(polished_lmer(linear_call(all_models()$lmm[[name]]), data)))
  else m <- polished_glmer(all_models()$glmm[[name]], data)
  out <- model[setdiff(names(model), "blocks")]
  out$blocks <- lapply(model$blocks, function(wanted) c(
    list(specs = wanted$specs, at = wanted$at),
    Map(function(ddf, kinds) block(m, wanted, ddf, unlist(kinds)), names(wanted$ddf), wanted$ddf)))
  out
}

write_reference("margins.json.gz", each_model("margins", describe))
