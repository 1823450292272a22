# inference_lmm.json.gz: tests of fixed effects by lmerTest, pbkrtest and car at the optima of lmm.json.gz.
# Run in this directory: Rscript inference_lmm.R [names]

suppressPackageStartupMessages({library(lme4); library(splines)})
source("common.R")

long <- c(satterthwaite = "Satterthwaite", kenward_roger = "Kenward-Roger")

coefficients_of <- function(tested, ddf) {
  found <- summary(tested, ddf = long[[ddf]])$coefficients
  list(se = vec(found[, "Std. Error"]), df = vec(found[, "df"]), t = vec(found[, "t value"]), p = vec(found[, "Pr(>|t|)"]))
}

compared <- function(name, m, reduced) {
  small <- linear_model(name, reduced)
  KR <- quiet(pbkrtest::KRmodcomp(m, small))$test["Ftest", ]
  SAT <- quiet(pbkrtest::SATmodcomp(m, small))$test
  list(reduced = reduced, KR = as.list(KR), SAT = as.list(SAT))
}

describe <- function(name, wanted) {
  m <- linear_model(name)
  out <- list()
  tested <- quiet(try(lmerTest::as_lmerModLmerTest(m), silent = TRUE))
  kinds <- unlist(wanted$coefficients)
  if (length(kinds)) out$coefficients <- lapply(setNames(nm = kinds), function(ddf) quiet(coefficients_of(tested, ddf)))
  if (length(wanted$anova)) out$anova <- Map(function(type, ddfs) lapply(setNames(nm = unlist(ddfs)), function(ddf)
    columns_of(quiet(anova(tested, type = type, ddf = long[[ddf]])))), names(wanted$anova), wanted$anova)
  if (wanted$vcov_varpar) out$vcov_varpar <- unname(tested@vcov_varpar)
  if (wanted$vcov_kenward_roger) out$vcov_kenward_roger <- unname(as.matrix(pbkrtest::vcovAdj(m)))
  if (length(wanted$wald)) out$wald <- lapply(setNames(nm = unlist(wanted$wald)), function(type)
    columns_of(car::Anova(m, type = type)))
  if (length(wanted$krmodcomp)) out$krmodcomp <- lapply(unlist(wanted$krmodcomp), function(reduced) compared(name, m, reduced))
  out
}

write_reference("inference_lmm.json.gz", list(about = paste(
  versions("lme4", "lmerTest", "pbkrtest", "car"), "at the polished optima of lmm.json.gz. Anova columns: Sum Sq, Mean Sq,",
  "NumDF, DenDF, F value, Pr(>F). Wald columns: Chisq, Df, Pr(>Chisq)."), models = each_model("inference_lmm", describe)))
