# Worker that predicts on grids with R's emmeans.

suppressPackageStartupMessages(library(lme4))
suppressPackageStartupMessages(library(emmeans))

here <- dirname(sub("^--file=", "", grep("^--file=", commandArgs(), value = TRUE)))
source(file.path(here, "protocol.R"))

fit <- function(task) lmer(as.formula(task$formula), task$data, REML = task$reml)

# "age=20:74:28;female=0:1:2" as a list of values.
values_of <- function(detail) {
  parts <- strsplit(strsplit(detail, ";", fixed = TRUE)[[1]], "[=:]")
  values <- lapply(parts, function(p) seq(as.numeric(p[2]), as.numeric(p[3]), length.out = as.integer(p[4])))
  setNames(values, vapply(parts, `[`, "", 1))
}

# Means and standard errors, the first variable slowest, factors averaged in their proportions.
grid <- function(model, task) {
  at <- values_of(task$detail)
  emm_options(lmer.df = "asymptotic", rg.limit = 1e6)
  made <- emmeans(model, reformulate(names(at)), at = at, weights = "proportional", data = task$data)
  table <- as.data.frame(made)
  table <- table[do.call(order, table[names(at)]), ]
  list(table$emmean, table$SE)
}

serve("emmeans", fit, actions = list(grid = grid))
